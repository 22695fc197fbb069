"""Reading videos and pictures: one reader for building data sets, sampling and evaluation."""
