"""The templates of reports: HTML (Jinja2) with its style sheet, and Typst for PDF."""
