"""NYUv2: 13-class segmentation, depth and surface normals of rooms."""
