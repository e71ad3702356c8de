/* Makes a program that never syncs durable: before a written regular file is closed, the file and its folder are
   forced to the disk. Loaded by LD_PRELOAD into DCMTK's storescp, so that durable is compared with durable. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int (*real_fclose)(FILE *);
static int (*real_close)(int);

static void look_up(void)
{
    if (!real_fclose) real_fclose = (int (*)(FILE *))dlsym(RTLD_NEXT, "fclose");
    if (!real_close) real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
}

static void to_disk(int fd)
{
    struct stat about;
    char link[64], path[PATH_MAX];
    int flags = fcntl(fd, F_GETFL);
    /* Standard streams are logs. */
    if (fd <= 2 || flags < 0 || (flags & O_ACCMODE) == O_RDONLY) return;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return;
    fsync(fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    char *slash = strrchr(path, '/');
    if (!slash) return;
    *slash = 0;
    int folder = open(path, O_RDONLY | O_DIRECTORY);
    if (folder < 0) return;
    fsync(folder);
    real_close(folder);
}

int fclose(FILE *file)
{
    look_up();
    if (file && fileno(file) >= 0 && fflush(file) == 0) to_disk(fileno(file));
    return real_fclose(file);
}

int close(int fd)
{
    look_up();
    to_disk(fd);
    return real_close(fd);
}
