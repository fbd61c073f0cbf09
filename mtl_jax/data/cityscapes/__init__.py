"""CityScapes: 7-class segmentation and depth of streets."""
