/** A copy of the repository's tracked files, where files can be broken and mended again. */

import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { patchedText } from './patch.ts';
import type { SourceMutation } from './source-mutation.ts';

const repository = join(import.meta.dirname, '..', '..');

export class ScratchTree {
  /** `folder/tree` is the copy; `folder/shared` stands beside it as it stands beside the repository. */
  readonly #folder: string = mkdtempSync(join(tmpdir(), 'routed-experts-mutations-'));
  readonly root: string = join(this.#folder, 'tree');
  /** For what a run writes. */
  readonly reportFile: string = join(this.#folder, 'report.json');

  constructor() {
    const listed = execFileSync('git', ['ls-files', '-z'], { cwd: repository, encoding: 'utf8' });
    for (const file of listed.split('\0')) {
      // A file that is deleted in the working tree is still listed.
      if (file === '' || !existsSync(join(repository, file))) continue;
      mkdirSync(dirname(join(this.root, file)), { recursive: true });
      copyFileSync(join(repository, file), join(this.root, file));
    }
    symlinkSync(join(repository, 'node_modules'), join(this.root, 'node_modules'));
    const shared = join(repository, '..', 'shared');
    if (existsSync(shared)) symlinkSync(shared, join(this.#folder, 'shared'));
  }

  /** Runs `use` while the mutation's file has the defect. */
  async patched<T>(mutation: SourceMutation, use: () => Promise<T>): Promise<T> {
    const path = join(this.root, mutation.file);
    const text = readFileSync(path, 'utf8');
    writeFileSync(path, patchedText(text, mutation));
    try {
      return await use();
    } finally {
      writeFileSync(path, text);
    }
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
