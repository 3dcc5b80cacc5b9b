"""One file per figure: results in, `PlotFigure` out. Nothing here reads files or writes HTML."""
