/* A null filesystem on libfuse's low-level interface: what bench/run.py measures against.
 *
 * It holds /f (1 GiB of zeros, writes are thrown away) and, once created, /n, which is empty.
 * Nothing is cached: all timeouts are zero and files are opened for direct I/O.
 *
 *   gcc -O2 null_lowlevel.c -o null_lowlevel $(pkg-config --cflags --libs fuse3)
 *   ./null_lowlevel [-s] -f [-o OPTIONS] MOUNTPOINT
 */
#define FUSE_USE_VERSION 34
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOT = 1, FILE_F = 2, FILE_N = 3, LARGEST_READ = 1 << 20 };

static char *zeros;
static atomic_int n_exists;

static void describe(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof *st);
	st->st_ino = ino;
	st->st_mode = ino == ROOT ? S_IFDIR | 0755 : S_IFREG | 0644;
	st->st_nlink = ino == ROOT ? 2 : 1;
	st->st_size = ino == FILE_F ? 1 << 30 : 0;
}

static struct fuse_entry_param entry_of(fuse_ino_t ino)
{
	struct fuse_entry_param entry = {.ino = ino};

	describe(ino, &entry.attr);
	return entry;
}

static void null_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;

	if (!strcmp(name, "f")) {
		entry = entry_of(FILE_F);
	} else if (!strcmp(name, "n") && n_exists) {
		entry = entry_of(FILE_N);
	} else {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fuse_reply_entry(req, &entry);
}

static void null_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	describe(ino, &st);
	fuse_reply_attr(req, &st, 0);
}

static void null_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->direct_io = 1;
	fi->fh = 7;
	fuse_reply_open(req, fi);
}

static void null_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			struct fuse_file_info *fi)
{
	struct fuse_entry_param entry = entry_of(FILE_N);

	n_exists = 1;
	fi->direct_io = 1;
	fi->fh = 8;
	fuse_reply_create(req, &entry, fi);
}

static void null_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	n_exists = 0;
	fuse_reply_err(req, 0);
}

static void null_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	fuse_reply_buf(req, zeros, size < LARGEST_READ ? size : LARGEST_READ);
}

static void null_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	fuse_reply_write(req, size);
}

static void null_done(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = null_lookup,
	.getattr = null_getattr,
	.open = null_open,
	.create = null_create,
	.unlink = null_unlink,
	.read = null_read,
	.write = null_write,
	.flush = null_done,
	.release = null_done,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts options;
	struct fuse_session *session;
	int failed = 1;

	zeros = calloc(1, LARGEST_READ);
	if (!zeros || fuse_parse_cmdline(&args, &options) || !options.mountpoint)
		return 1;
	session = fuse_session_new(&args, &operations, sizeof operations, NULL);
	if (!session || fuse_set_signal_handlers(session) ||
	    fuse_session_mount(session, options.mountpoint))
		return 1;
	if (options.singlethread) {
		failed = fuse_session_loop(session);
	} else {
		struct fuse_loop_config config = {
			.clone_fd = options.clone_fd,
			.max_idle_threads = 10, /* the default of fuse_main() */
		};

		failed = fuse_session_loop_mt(session, &config);
	}
	fuse_session_unmount(session);
	fuse_remove_signal_handlers(session);
	fuse_session_destroy(session);
	return failed < 0;
}
