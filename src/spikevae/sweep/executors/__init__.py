"""Where stacks are trained. An executor takes stack ids and says what is done; results go to the run folder."""
