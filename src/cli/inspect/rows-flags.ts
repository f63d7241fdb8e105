/** Flags of every command that reads files of rows: what the caller knows, where a form may not say it. */

import type { Command } from 'commander';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { ReadRowsHints } from '../../rows/files/rows-hints.ts';
import { whole } from '../options.ts';

export type RowsFlags = Readonly<{ layers?: number; topK?: number; experts?: number; column?: string }>;

export function withRowsFlags(command: Command): Command {
  return command
    .option('--layers <n>', 'layers of a row, where the form does not say it (SGLang)', whole(1, 10_000))
    .option('--top-k <n>', 'experts of a layer of a row, likewise', whole(1, 10_000))
    .option('--experts <n>', 'experts of a layer; ids beyond are an error', whole(1, 65_536))
    .option('--column <name>', 'Parquet: the column of the rows');
}

/** @throws BAD_VALUE for one of L and K without the other */
export function hintsOf({ layers, topK, experts, column }: RowsFlags): ReadRowsHints {
  if ((layers === undefined) !== (topK === undefined)) {
    const [name, other] = layers === undefined ? ['--layers', '--top-k'] : ['--top-k', '--layers'];
    throw RoutedExpertsError.of('BAD_VALUE', name, 'missing', `both ${other} and ${name}, or neither`);
  }
  return {
    ...(layers !== undefined && topK !== undefined && { rowShape: { numLayers: layers, topK } }),
    ...(experts !== undefined && { numExperts: experts }),
    ...(column !== undefined && { column }),
  };
}
