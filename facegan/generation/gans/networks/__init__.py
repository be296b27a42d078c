"""The networks of the GAN families: imported when one is built, never to list them."""
