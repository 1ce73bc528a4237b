"""What is shipped beside the package: units, packages, rules, dashboards."""
