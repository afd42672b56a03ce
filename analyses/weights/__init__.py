"""A checkpoint on disk or on a hub, tensor by tensor, whatever its family and file format."""
