"""Who a person is (passcode file, LDAP, JWT), and who operates the gateway."""
