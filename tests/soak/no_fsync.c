/* Makes a program believe that its bytes are on the disk when nobody has forced them there. Loaded by LD_PRELOAD into
   a node, so that a test of power cuts is seen to find what is lost. */
int fsync(int fd) { (void)fd; return 0; }
int fdatasync(int fd) { (void)fd; return 0; }
