"""stylize in napari: a dock widget that paints layers, sample pictures, and a writer that keeps the record."""
