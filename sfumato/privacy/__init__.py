"""What was released and what it cost: events, ledger, accountants, calibration."""
