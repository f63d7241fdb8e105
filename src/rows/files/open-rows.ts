/** Rows from files of every form that people have. */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { Capture } from '../captures/capture.ts';
import type { RowBatch, RowSource } from '../row-batch.ts';
import { npyRows, npzRows } from './array-rows.ts';
import { fileKind } from './file-kind.ts';
import { parquetRows } from './parquet-rows.ts';
import type { ReadRowsHints } from './rows-hints.ts';
import { textRows } from './text-rows.ts';

/** Rows of files, and the capture if one file holds it as a whole. */
export type OpenedRows = Readonly<{ source: RowSource; capture: Capture | null }>;

/**
 * Files of one shape, read one after the other.
 *
 * @throws BAD_FILE, BAD_TRACE_LINE, BAD_ROWS: file, place and rule
 */
export async function openRows(paths: readonly string[], hints: ReadRowsHints = {}): Promise<OpenedRows> {
  const opened: OpenedRows[] = [];
  for (const path of paths) opened.push(await openFile(path, hints));
  const [first, ...others] = opened.map(withPath(paths));
  if (first === undefined) throw RoutedExpertsError.of('BAD_VALUE', 'files', 'none', 'at least one');
  if (others.length === 0) return first;
  const { shape, knows, form } = first.source;
  for (const [i, { source }] of others.entries()) {
    const own = source.shape;
    const isSame =
      own.numLayers === shape.numLayers &&
      own.topK === shape.topK &&
      own.layers?.join() === shape.layers?.join() &&
      own.numExperts === shape.numExperts;
    if (isSame) continue;
    const problem = `mixes shapes: its rows are ${told(own)}, those of ${paths[0]} are ${told(shape)}`;
    throw RoutedExpertsError.of('BAD_FILE', paths[i + 1]!, problem);
  }
  const all = [first, ...others].map(({ source }) => source);
  const source: RowSource = {
    form,
    shape,
    knows: {
      requests: all.every((each) => each.knows.requests),
      promptLengths: all.every((each) => each.knows.promptLengths),
      // Passes of captures do not stand one after the other.
      steps: knows.steps && all.every((each) => each.form === 'route log'),
      tokens: all.every((each) => each.knows.tokens),
    },
    async *batches() {
      for (const each of all) {
        let isFirst = true;
        for await (const batch of each.batches()) {
          yield { ...batch, startsRequest: batch.startsRequest || isFirst };
          isFirst = false;
        }
      }
    },
  };
  return { source, capture: null };
}

/** Places in messages begin with the file. */
function withPath(paths: readonly string[]): (opened: OpenedRows, index: number) => OpenedRows {
  return ({ source, capture }, index) => ({
    capture,
    source: {
      ...source,
      async *batches() {
        for await (const batch of source.batches()) {
          const placeOf: RowBatch['placeOf'] = (entry) => `${paths[index]}: ${batch.placeOf(entry)}`;
          yield { ...batch, placeOf };
        }
      },
    },
  });
}

function told({ numLayers, topK, layers }: RowSource['shape']): string {
  return `${numLayers} × ${topK}${layers === null ? '' : ` (layers ${layers.join(', ')})`}`;
}

async function openFile(path: string, hints: ReadRowsHints): Promise<OpenedRows> {
  const kind = fileKind(path);
  if (kind === 'text') {
    const opened = await textRows(path, hints);
    const { numExperts } = hints;
    const own = opened.source.shape.numExperts;
    if (numExperts === undefined || own === null || own === numExperts) return opened;
    throw RoutedExpertsError.of('BAD_FILE', path, `is of ${own} experts, not ${numExperts}`);
  }
  const read = { npy: npyRows, zip: npzRows, parquet: parquetRows }[kind];
  return { source: await read(path, hints), capture: null };
}
