"""Operating points and referral bands: fitted, recorded, tabulated."""
