/** The layers' axis of rows as their reader wants it: those with a router, or all of the model's. */

import type { ModelConfig, RowsLayers } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import { countModelLayers, routerLayers } from '../kernels/model/model-layers.ts';

/** The names of both axes. */
export const rowsLayersNames: readonly RowsLayers[] = ['routers', 'all'];

/**
 * Gives the rows of a request another axis in O(1): chunks are shared, and not looked at here, since a design may put
 * their list together when it is read first. Whoever writes the rows puts the zeros of dense layers between the ids.
 */
export type WithLayers = (rows: RoutedRows) => RoutedRows;

/** Made once for a model, used for each answer. Throws UNKNOWN_NAME for an axis that there is not. */
export function withLayersOf(model: ModelConfig, axis: RowsLayers): WithLayers {
  if (!rowsLayersNames.includes(axis)) {
    throw RoutedExpertsError.of('UNKNOWN_NAME', 'axis of layers', axis, rowsLayersNames);
  }
  const layers = routerLayers(model);
  const numLayers = axis === 'all' ? countModelLayers(model) : layers.length;
  return (rows) => {
    if (rows.layers !== undefined && rows.numLayers === numLayers) return rows;
    const { start, count, topK, dtype, rowsPerChunk, chunkOrigin } = rows;
    return {
      start,
      count,
      numLayers,
      layers,
      topK,
      dtype,
      rowsPerChunk,
      ...(chunkOrigin === undefined ? {} : { chunkOrigin }),
      get chunks() {
        return rows.chunks;
      },
      get missing() {
        return rows.missing;
      },
    };
  };
}
