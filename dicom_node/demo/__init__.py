"""The demo: the main job from a modality through the node to a small archive, shown to a person."""
