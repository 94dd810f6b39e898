"""Locomotion: task families simulated by MuJoCo."""
