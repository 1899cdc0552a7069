"""Every conversation enters here: template and control tokens, to token ids."""
