"""Between `perfuse.v1.TrainerService` and the rules."""
