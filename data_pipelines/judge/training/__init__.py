"""`rmkit train judge`: SFT, DPO and reward-guided training of a language model that judges."""
