"""From a request to its answer: parse, route, queue, run, reply."""
