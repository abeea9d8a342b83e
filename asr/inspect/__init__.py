"""What a trained model does with a recording, as a picture: `asr inspect`."""
