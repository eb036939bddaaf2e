"""The lab: a small real world that ships with the project (three experts of one base, their items, and the recipe)."""
