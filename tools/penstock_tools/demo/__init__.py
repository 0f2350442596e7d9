"""`penstock demo`: the whole story on one machine, in about a minute and a half.

Trains two versions on January to March, serves the first as champion with the second as canary and shadow, sends the
flights of April to December in the order of time, and promotes the second while they fly. `run` is the door; `story`
tells it.
"""

from penstock_tools.demo.plan import Plan


def run(plan: Plan | None = None) -> int:
    """Runs the demo, telling it on standard output.

    Returns:
        The exit code: 0 if every request was answered and the server stopped cleanly, else 1; 130 after Ctrl-C.

    Raises:
        PenstockError: a step cannot be done; says which and why.
    """
    from penstock_tools.demo import run as story

    return story.tell(plan or Plan())
