"""Every picture of the studies. They need matplotlib and seaborn: `pip install '.[figures]'`."""
