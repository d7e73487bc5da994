/* A data set's pictures. */
