"""Who is who in a gallery: pairs and decisions to individuals and questions; arrays in, arrays out, no store."""
