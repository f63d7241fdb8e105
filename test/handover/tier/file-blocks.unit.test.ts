/** Which blocks are written to files, and which files go. */

import { expect, test } from 'vitest';
import { FileBlocks, type FileEntry } from '../../../src/handover/tier/file-blocks.ts';
import { TierBlock } from '../../../src/handover/tier/tier-block.ts';

const SIZE = 4;
const block = (hash: string, rowsOffset: number = SIZE): TierBlock =>
  new TierBlock({ hash, rowsOffset, evicted: null });

function driven(capacity: number, found: readonly FileEntry[] = []) {
  const written: FileEntry[] = [];
  const removed: string[] = [];
  const files = new FileBlocks(
    { nameOf: (hash) => hash, capacity, found },
    {
      write: (entry) => void written.push(entry),
      read: () => {},
      remove: ({ name, rowsOffset }) => void removed.push(`${name}-${rowsOffset}`),
    },
  );
  return { files, written, removed };
}

test('a file is found when it is whole, and the one used longest ago makes room', () => {
  const { files, written, removed } = driven(2);
  files.store(block('a'));
  expect(files.find('a')).toBeNull();
  files.written(written[0]!);
  expect(files.find('a')).toBe(written[0]);
  files.store(block('b'));
  files.written(written[1]!);
  files.store(block('a'));
  files.store(block('c'));
  expect([files.size, removed]).toEqual([2, ['b-4']]);
});

test('files that are found at the start are bounded as well', () => {
  const found = ['a', 'b', 'c'].map((name) => ({ name, rowsOffset: 0 }));
  const { files, removed } = driven(2, found);
  expect([files.size, removed]).toEqual([2, ['a-0']]);
});

test('a block with more rows is written in place of one with fewer, and not the other way round', () => {
  const { files, written, removed } = driven(4);
  files.store(block('a', SIZE));
  files.written(written[0]!);
  files.store(block('a', 0));
  files.written(written[1]!);
  files.store(block('a', SIZE));
  expect([written.length, files.find('a')?.rowsOffset, removed]).toEqual([2, 0, ['a-4']]);
});

test('a file whose place was given up while it was written goes when it is whole', () => {
  const { files, written, removed } = driven(1);
  files.store(block('a'));
  files.store(block('b'));
  expect(removed).toEqual([]);
  files.written(written[0]!);
  expect(removed).toEqual(['a-4']);
  files.clear();
  files.written(written[1]!);
  expect([files.size, files.numWriting, removed]).toEqual([0, 0, ['a-4', 'b-4']]);
});

test('a file that cannot be written or read is counted and forgotten', () => {
  const { files, written, removed } = driven(4);
  files.store(block('a'));
  files.notWritten(written[0]!);
  expect([files.size, files.counts.problems, removed]).toEqual([0, 1, []]);
  files.store(block('b'));
  files.written(written[1]!);
  files.notRead(written[1]!);
  files.notRead(written[1]!);
  expect([files.size, files.counts.problems, removed]).toEqual([0, 3, ['b-4']]);
});

test('a slow disk gets fewer blocks, and the tier no more memory', () => {
  const { files, written } = driven(1000);
  for (let i = 0; i < 100; i++) files.store(block(`${i}`));
  expect([written.length, files.numWriting, files.counts.skippedWrites]).toEqual([64, 64, 36]);
});
