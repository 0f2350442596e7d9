"""The Grafana dashboards: what each panel asks Prometheus, as data, and the files that are made of it."""
