// The layers' axis: rows of the layers with a router, or of all layers with zeros where one is dense. Ids stay at their
// layers, missing rows stay missing (L4), and no row is copied before it is read (L6).

import { expect, test } from 'vitest';
import { withLayersOf } from '../../src/capture/row-layers.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import { presentPieces, rowAt, routedRows, toArray } from '../../src/capture/routed-rows.ts';
import type { ModelConfig, RowsLayers } from '../../src/contract/config.ts';
import { kernelShape } from '../../src/kernels/model/kernel-shape.ts';
import { countModelLayers, routerLayers } from '../../src/kernels/model/model-layers.ts';
import { MODEL_NAMES, modelPreset } from '../../src/kernels/model/model-presets.ts';
import { engineConfig } from '../kernels/harness.ts';

const model = modelPreset('tiny-dense');
/** Rows of the positions [5, 9), position 6 missing; each id is 1 at least, so that a zero is a dense layer's. */
const ids = Uint8Array.from({ length: 4 * 6 }, (_, i) => 1 + i);
const rows = routedRows(rowShape(model), 5, 9, { chunks: [ids], missing: [[6, 7]] });

test('rows of all layers have zeros where a layer is dense, and their ids at their layers', () => {
  const all = withLayersOf(model, 'all')(rows);
  expect(all).toMatchObject({ numLayers: 6, layers: [2, 3, 5], missing: [[6, 7]], chunks: [ids] });
  expect([...rowAt(all, 5)!]).toEqual([0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 5, 6]);
  expect(rowAt(all, 6)).toBeNull();
  expect([...toArray(all, 255)].slice(12, 36)).toEqual([...Array(12).fill(255), ...rowAt(all, 7)!]);
});

test('rows of the layers with a router name these, and are views', () => {
  const routers = withLayersOf(model, 'routers')(withLayersOf(model, 'all')(rows));
  expect(routers).toMatchObject({ numLayers: 3, layers: [2, 3, 5] });
  expect(rowAt(routers, 5)!.buffer).toBe(ids.buffer);
});

test('the list of chunks is put together when it is read, and not before', () => {
  let numReads = 0;
  const lazy = {
    ...rows,
    get chunks() {
      numReads++;
      return rows.chunks;
    },
  };
  const all = withLayersOf(model, 'all')(lazy);
  expect(withLayersOf(model, 'routers')(lazy)).toBe(lazy);
  expect(numReads).toBe(0);
  expect(rowAt(all, 5)).not.toBeNull();
});

test('rows of all layers are copied in bounded pieces', () => {
  const long = routedRows(rowShape(model), 0, 20_000, { chunks: [new Uint8Array(20_000 * 6)], missing: [] });
  const pieces = [...presentPieces(withLayersOf(model, 'all')(long))];
  expect(pieces.reduce((sum, { count }) => sum + count, 0)).toBe(20_000);
  expect(Math.max(...pieces.map((piece) => piece.rows.length))).toBeLessThanOrEqual(65_536);
});

test('an axis that there is not is refused', () => {
  expect(() => withLayersOf(model, 'dense' as RowsLayers)).toThrow('choose one of: routers, all');
});

test('the presets have the layers of the published models', () => {
  const known = {
    'deepseek-v2': [60, 59],
    'deepseek-v3': [61, 58],
    'kimi-k2': [61, 60],
    'kimi-k3': [93, 92],
    'glm-4.5': [92, 89],
    'ernie-4.5-300b': [54, 51],
    'llama-4-maverick': [48, 24],
    'nemotron-3-nano': [52, 23],
    'nemotron-3-super': [88, 40],
  };
  for (const [name, layers] of Object.entries(known)) {
    const preset = modelPreset(name);
    expect([countModelLayers(preset), routerLayers(preset).length], name).toEqual(layers);
  }
  for (const name of MODEL_NAMES) expect(routerLayers(modelPreset(name)).length).toBe(modelPreset(name).numLayers);
  expect(routerLayers(modelPreset('llama-4-maverick')).slice(0, 3)).toEqual([1, 3, 5]);
});

test.each([[[2, 1]], [[0, 0]], [[5]], [[-1]], [[0.5]]])('dense layers %o are refused', (denseLayers) => {
  const wrong: ModelConfig = { ...modelPreset('tiny'), denseLayers };
  expect(() => kernelShape(wrong, engineConfig())).toThrow('ascending layers in [0, ');
});
