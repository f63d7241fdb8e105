/** Which of a model's layers have a router, and how many layers there are. */

import type { ModelConfig } from '../../contract/config.ts';

type Layers = Pick<ModelConfig, 'numLayers' | 'denseLayers'>;

/** Layers with a router and dense ones. */
export function countModelLayers({ numLayers, denseLayers = [] }: Layers): number {
  return numLayers + denseLayers.length;
}

/** The layers that have a router, ascending, `[numLayers]`: entry i is the layer of column i of a row. */
export function routerLayers(model: Layers): readonly number[] {
  const { denseLayers = [] } = model;
  const layers: number[] = [];
  for (let layer = 0, dense = 0; layer < countModelLayers(model); layer++) {
    if (layer === denseLayers[dense]) dense++;
    else layers.push(layer);
  }
  return layers;
}
