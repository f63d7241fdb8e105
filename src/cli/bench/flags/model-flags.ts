/** The model shape that a bench serves: a preset, with layers and K of the caller's own if that is asked for. */

import { InvalidArgumentError } from 'commander';
import type { ModelConfig } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { RecordedRouting } from '../../../contract/recorded-routing.ts';
import { checkModel } from '../../../kernels/model/kernel-shape.ts';
import { modelPreset } from '../../../kernels/model/model-presets.ts';
import { recordedModel } from './recording-flags.ts';

/** How many layers have a router, and how many experts each token goes to. */
export type LayersXK = Readonly<{ numLayers: number; topK: number }>;

const MOST_LAYERS = 1024;
const MOST_K = 64;

/** As `61x8`. */
export function parseLayersXK(text: string): LayersXK {
  const [, layers, k] = /^(\d{1,6})x(\d{1,6})$/.exec(text) ?? [];
  const [numLayers, topK] = [Number(layers), Number(k)];
  const isInRange = numLayers >= 1 && numLayers <= MOST_LAYERS && topK >= 1 && topK <= MOST_K;
  if (isInRange) return { numLayers, topK };
  const wanted = `1 to ${MOST_LAYERS} layers and a K of 1 to ${MOST_K}`;
  throw new InvalidArgumentError(`Give layers x K, as 61x8: ${wanted}.`);
}

type ModelFlags = Readonly<{ model: string; gateWidth: number; layersXK?: LayersXK }>;

/** Throws UNKNOWN_NAME, and BAD_VALUE for a shape that no router has. */
export function modelOf({ model, gateWidth, layersXK }: ModelFlags, recording: RecordedRouting | null): ModelConfig {
  const given = layersXK === undefined ? null : `${layersXK.numLayers}x${layersXK.topK}`;
  if (recording !== null) {
    if (given === null) return recordedModel(recording, gateWidth);
    const why = 'none with --recording, whose rows have a shape of their own';
    throw RoutedExpertsError.of('BAD_VALUE', '--layers-x-k', given, why);
  }
  const preset = modelPreset(model, gateWidth);
  if (layersXK === undefined) return preset;
  if (layersXK.topK > preset.numExperts) {
    const wanted = `a K of at most ${preset.numExperts}, the experts of ${preset.name} (--model)`;
    throw RoutedExpertsError.of('BAD_VALUE', '--layers-x-k', given, wanted);
  }
  const { denseLayers: _, ...withoutDense } = preset;
  const shaped = { ...withoutDense, ...layersXK };
  checkModel(shaped);
  return shaped;
}
