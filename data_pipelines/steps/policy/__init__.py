"""Steps that choose which responses a policy trains on."""
