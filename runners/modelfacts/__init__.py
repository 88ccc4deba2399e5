"""What a model is, from a few kilobytes of its headers: shapes, parameters, sizes. Nothing is downloaded."""
