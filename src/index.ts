/**
 * `import { createEngine } from 'routed-experts'`: an engine with worker threads that returns the experts each token
 * was routed to.
 */

export type {
  ClockTimes,
  DesignName,
  DeviceKind,
  EngineConfig,
  ModelConfig,
  PrefixRows,
  RouterKernels,
} from './contract/config.ts';
export type { DeviceInfo } from './contract/device.ts';
export type { FinishReason } from './contract/engine-core-output.ts';
export { RoutedExpertsError, type ErrorCode } from './contract/errors.ts';
export type { PositionRange, RoutedRows } from './contract/routed-rows.ts';
export { countPresent, rowAt, toArray } from './capture/routed-rows.ts';
export { createEngine, type Engine } from './host/engine.ts';
export type { EngineOptions } from './host/engine-options.ts';
export type { OffloadStats } from './host/kv-tier/kv-offload.ts';
export type { KvOffloadOptions } from './host/kv-tier/offload-options.ts';
export type { GenerateOptions } from './host/generate-options.ts';
export type { GenerationResult, GenerationUpdate } from './host/live-request.ts';
export { prepareAdapters } from './kernels/device/open-device.ts';
export { MODEL_NAMES, modelPreset } from './kernels/model/model-presets.ts';
