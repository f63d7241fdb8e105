/** `SharedRows` over real `shm_open`, `mmap` and `flock`, called through koffi. Linux with glibc ≥ 2.34. */

import { closeSync, openSync, rmSync, statfsSync } from 'node:fs';
import koffi from 'koffi';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { rowShape } from '../row-shape.ts';
import type { SharedRows } from './shared-rows.ts';

const SHARED_MEMORY_DIRECTORY = '/dev/shm';

// Linux's own numbers (asm-generic/fcntl.h, sys/mman.h, sys/file.h).
const O_RDWR = 0o2;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const PROT_READ_WRITE = 0x1 | 0x2;
const MAP_SHARED = 0x1;
const LOCK_EX = 2;
const LOCK_UN = 8;

export type SharedMemoryName = Readonly<{ name: string; lockFile: string }>;

function loadLibc() {
  const library = koffi.load('libc.so.6');
  return {
    shmOpen: library.func('int shm_open(const char *name, int flags, unsigned int mode)') as (
      name: string,
      flags: number,
      mode: number,
    ) => number,
    shmUnlink: library.func('int shm_unlink(const char *name)') as (name: string) => number,
    posixFallocate: library.func('int posix_fallocate(int fd, long offset, long length)') as (
      fd: number,
      offset: number,
      length: number,
    ) => number,
    mmap: library.func('void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)') as (
      address: null,
      length: number,
      protection: number,
      flags: number,
      fd: number,
      offset: number,
    ) => bigint,
    munmap: library.func('int munmap(void *address, size_t length)') as (address: bigint, length: number) => number,
    close: library.func('int close(int fd)') as (fd: number) => number,
    flock: library.func('int flock(int fd, int operation)') as (fd: number, operation: number) => number,
  };
}

let loadedLibc: ReturnType<typeof loadLibc> | null = null;

function libc(): ReturnType<typeof loadLibc> {
  try {
    return (loadedLibc ??= loadLibc());
  } catch (error) {
    throw RoutedExpertsError.of(
      'SHARED_MEMORY',
      `its calls were not found in libc.so.6 (${String(error)})`,
      'run it on Linux, or leave the design out with --design',
    );
  }
}

/** Bytes of the table for a model and pool: int32 `[numBlocks · blockSize, L, K]`. */
export function sharedRowsBytes(model: ModelConfig, engine: EngineConfig): number {
  return engine.numBlocks * engine.blockSize * rowShape(model, 'int32').bytesPerRow;
}

/**
 * `unlink` takes the object's name away, once both halves have mapped it: a process that is killed after that leaves
 * only the empty lock file behind.
 */
export type CreatedSharedRows = SharedRows & Readonly<{ unlink: () => void }>;

/**
 * Creates the shared memory object and its lock file. Memory is claimed here, so that a full file system is an error at
 * start and not a SIGBUS later. Throws SHARED_MEMORY when there is no `/dev/shm` or too little room in it, and leaves
 * nothing behind.
 */
export function createSharedRows(where: SharedMemoryName, byteLength: number): CreatedSharedRows {
  const free = freeSharedMemoryBytes();
  if (free < byteLength) {
    throw RoutedExpertsError.of(
      'SHARED_MEMORY',
      `${byteLength} bytes are needed in ${SHARED_MEMORY_DIRECTORY}, ${free} are free`,
      'give it more room, lower --num-blocks, or leave the design out with --design',
    );
  }
  const fd = libc().shmOpen(where.name, O_CREAT | O_EXCL | O_RDWR, 0o600);
  if (fd < 0) throw systemError(`shm_open("${where.name}") failed`);
  const unlink = () => void libc().shmUnlink(where.name);
  const remove = () => {
    process.removeListener('exit', remove);
    unlink();
    rmSync(where.lockFile, { force: true });
  };
  process.once('exit', remove);
  try {
    const claimed = libc().posixFallocate(fd, 0, byteLength);
    if (claimed !== 0) throw systemError(`posix_fallocate of ${byteLength} bytes failed with errno ${claimed}`);
    closeSync(openLockFile(where.lockFile, 'w'));
    return Object.assign(new PosixSharedRows(fd, where.lockFile, byteLength, remove), { unlink });
  } catch (error) {
    libc().close(fd);
    remove();
    throw error;
  }
}

/** Maps what the other half created. */
export function openSharedRows(where: SharedMemoryName, byteLength: number): SharedRows {
  const fd = libc().shmOpen(where.name, O_RDWR, 0o600);
  if (fd < 0) throw systemError(`shm_open("${where.name}") failed in the worker`);
  try {
    return new PosixSharedRows(fd, where.lockFile, byteLength, () => {});
  } catch (error) {
    libc().close(fd);
    throw error;
  }
}

function openLockFile(path: string, flags: string): number {
  try {
    return openSync(path, flags, 0o600);
  } catch (error) {
    throw RoutedExpertsError.of(
      'SHARED_MEMORY',
      `its lock file cannot be opened (${String(error)})`,
      'set TMPDIR to a folder that can be written',
    );
  }
}

/**
 * The lock file is opened anew for each lock, as in the source. `flock` belongs to the open file: the lock excludes
 * threads too, and the kernel releases it when the thread or process that holds it ends.
 */
class PosixSharedRows implements SharedRows {
  readonly #address: bigint;
  readonly #byteLength: number;
  readonly #lockFile: string;
  /** Open while the lock is held. */
  #lockFd = -1;
  readonly #afterClose: () => void;
  #rows: Int32Array | null;

  /** Takes the descriptor over, unless it throws. */
  constructor(fd: number, lockFile: string, byteLength: number, afterClose: () => void) {
    this.#byteLength = byteLength;
    this.#lockFile = lockFile;
    this.#afterClose = afterClose;
    this.#address = libc().mmap(null, byteLength, PROT_READ_WRITE, MAP_SHARED, fd, 0);
    if (BigInt.asIntN(64, this.#address) === -1n) throw systemError(`mmap of ${byteLength} bytes failed`);
    libc().close(fd);
    this.#rows = new Int32Array(koffi.view(this.#address, byteLength));
  }

  get rows(): Int32Array {
    if (this.#rows === null) throw RoutedExpertsError.of('INVARIANT', 'shared rows used after close');
    return this.#rows;
  }

  lock(): void {
    this.#lockFd = openLockFile(this.#lockFile, 'r+');
    this.#flock(LOCK_EX);
  }

  unlock(): void {
    this.#flock(LOCK_UN);
    closeSync(this.#lockFd);
  }

  #flock(operation: number): void {
    if (libc().flock(this.#lockFd, operation) === 0) return;
    const error = systemError(`flock of operation ${operation} failed`);
    closeSync(this.#lockFd);
    throw error;
  }

  close(): void {
    if (this.#rows === null) return;
    // The view must be unreachable before its memory goes: a read through it afterwards is a segmentation fault.
    this.#rows = null;
    libc().munmap(this.#address, this.#byteLength);
    this.#afterClose();
  }
}

function freeSharedMemoryBytes(): number {
  try {
    const { bavail, bsize } = statfsSync(SHARED_MEMORY_DIRECTORY);
    return bavail * bsize;
  } catch {
    throw RoutedExpertsError.of(
      'SHARED_MEMORY',
      `${SHARED_MEMORY_DIRECTORY} does not exist`,
      'mount a tmpfs there, or leave the design out with --design',
    );
  }
}

function systemError(what: string): RoutedExpertsError {
  return RoutedExpertsError.of('SHARED_MEMORY', `${what} (errno ${koffi.errno()})`, 'see errno(3)');
}
