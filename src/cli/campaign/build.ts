/** The code that runs, by a name that two machines can compare. */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkoutCommit, packageVersion } from '../environment.ts';
import type { Build } from './core/part.ts';

/** `src`, or `dist` in a package. */
const CODE = fileURLToPath(new URL('../..', import.meta.url));

/** Changes that are not committed, and code outside of a checkout, are named by a digest of all files. */
export function currentBuild(): Build {
  const commit = checkoutCommit();
  const isCommitted = commit !== null && !commit.includes('+');
  return {
    version: packageVersion() ?? 'unknown',
    commit: isCommitted ? commit : `${commit ?? 'none'}-${codeDigest()}`,
  };
}

function codeDigest(): string {
  const digest = createHash('sha256');
  const entries = readdirSync(CODE, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const files = entries.map(({ parentPath, name }) => join(parentPath, name).slice(CODE.length));
  for (const file of files.map((name) => name.replaceAll('\\', '/')).sort()) {
    digest
      .update(`${file}\0`)
      .update(readFileSync(join(CODE, file)))
      .update('\0');
  }
  return digest.digest('hex').slice(0, 12);
}
