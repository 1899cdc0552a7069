"""`rmkit train KIND --plan`: what a run will take, told before any weight is loaded."""
