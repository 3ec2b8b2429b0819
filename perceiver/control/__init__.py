"""From sensors to motor commands: policies, what they are given and when, and what robots record."""
