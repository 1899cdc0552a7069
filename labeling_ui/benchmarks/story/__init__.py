"""`rmkit bench story`: the whole loop by rmkit's own commands, killed between its stages, as one page."""
