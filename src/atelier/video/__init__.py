"""Video: any image method over the frames of a clip, held steady by the motion between them."""
