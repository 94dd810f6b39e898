"""Locomotion: task families whose dynamics are MuJoCo's."""
