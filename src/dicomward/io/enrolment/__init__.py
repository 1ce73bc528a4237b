"""The enrolment server (EST, CMP, pages for people), invitations, and the device's side."""
