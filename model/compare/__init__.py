"""The comparison of models and ideas: a grid of trainings, their statistics, tables and pictures."""
