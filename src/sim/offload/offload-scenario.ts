/** What a scenario with KV outside the device has beyond that of an engine alone. */

/** Ticks, of which a share takes longer by a factor. */
export type CopyTiming = Readonly<{ ticks: number; jitter: number; slowShare: number; slowFactor: number }>;

export type VirtualFiles = Readonly<{
  /** The most files. */
  blocks: number;
  timing: CopyTiming;
  /** Of writes: the disk is full, or read-only with 1. */
  failedWriteShare: number;
  /** Of reads: the file is gone, or holds something else than its name says. */
  failedReadShare: number;
}>;

export type OffloadScenario = Readonly<{
  /** Blocks in host memory. */
  hostBlocks: number;
  /** Reads of the device under way at once. */
  mostCopies: number;
  /** Between a read of the device and its arrival, and between the wish to write to it and the write. */
  copy: CopyTiming;
  /** Of reads of the device, and of writes to it, that fail. */
  failedCopyShare: number;
  /** `null`: there are no files. */
  files: VirtualFiles | null;
}>;

const isTiming = (timing: unknown): boolean =>
  typeof timing === 'object' &&
  timing !== null &&
  Object.values(timing).every((value) => typeof value === 'number' && value >= 0);

const isShare = (value: unknown): boolean => typeof value === 'number' && value >= 0 && value <= 1;
const isCount = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 1;

/** Throws what `bad` makes. */
export function checkOffloadScenario(offload: OffloadScenario, bad: (problem: string) => Error): void {
  if (typeof offload !== 'object' || offload === null) throw bad('"offload" is no object');
  const { hostBlocks, mostCopies, copy, failedCopyShare, files } = offload;
  if (!isCount(hostBlocks) || !isCount(mostCopies)) throw bad('"offload" holds a count that is no whole number ≥ 1');
  if (!isTiming(copy) || !isShare(failedCopyShare)) throw bad('"offload" holds a time or share that is none');
  if (files === null) return;
  if (typeof files !== 'object' || !isCount(files.blocks)) throw bad('"offload.files" is no store of files');
  const shares = [files.failedWriteShare, files.failedReadShare];
  if (!isTiming(files.timing) || !shares.every(isShare))
    throw bad('"offload.files" holds a time or share that is none');
}
