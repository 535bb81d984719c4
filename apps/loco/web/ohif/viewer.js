// OHIF through its own services: what is shown, the label map over it, and the tools that change it.
import { parse, reordered, write, writePicture } from './nrrd.js';

const ID = 'loco-'; // and which series
const NO_IMAGES = new Set(['SEG', 'SR', 'PR', 'RTSTRUCT', 'KO', 'DOC']);
const COLOURS = [
  [230, 80, 60, 255], [60, 160, 230, 255], [90, 200, 90, 255], [240, 190, 50, 255],
  [180, 100, 220, 255], [70, 210, 200, 255], [240, 130, 180, 255], [160, 140, 100, 255],
];

const ASK_AGAIN_MS = 60000;

let asked = -Infinity;

const services = () => window.services;

// Each series has a label map of its own, so that strokes stay with it when another one is looked at.
const idOf = set => ID + set.displaySetInstanceUID;

// The series in the active viewport, or the first that is shown, with the viewports that show it; null until it is there.
export function shown() {
  const { viewportGridService, displaySetService, cornerstoneViewportService } = services();
  const { viewports, activeViewportId } = viewportGridService.getState();
  const ids = [activeViewportId, ...viewports.keys()];
  for (const id of ids) {
    const uid = viewports.get(id)?.displaySetInstanceUIDs?.[0];
    const set = uid && displaySetService.getDisplaySetByUID(uid);
    if (set?.imageIds?.length && !NO_IMAGES.has(set.Modality)) {
      const showing = [...viewports.keys()].filter(
        v => viewports.get(v).displaySetInstanceUIDs?.[0] === uid && hasImages(cornerstoneViewportService.getCornerstoneViewport(v))
      );
      return showing.length ? { set, viewports: showing } : null;
    }
  }
  return null;
}

// A viewport of pictures is there some time before its pictures are.
function hasImages(viewport) {
  return Boolean(viewport) && (viewport.type !== 'stack' || viewport.getImageIds().length > 0);
}

// The mode shows volumes in three planes. When no series of the study is a volume, show the first one as it is. Each request
// builds the whole page anew, this panel too, so it is made once, and again only when a slow browser must have missed it.
export function showPictures() {
  if (performance.now() - asked < ASK_AGAIN_MS) {
    return;
  }
  const { displaySetService, viewportGridService } = services();
  const images = displaySetService.getActiveDisplaySets().filter(set => !NO_IMAGES.has(set.Modality));
  const empty = [...viewportGridService.getState().viewports.values()].every(v => !v.displaySetInstanceUIDs?.length);
  if (images.length && empty && !images.some(set => set.isReconstructable)) {
    asked = performance.now();
    window.commandsManager.runCommand('setHangingProtocol', { protocolId: 'default', stageIndex: 0 });
  }
}

// Show one picture of a series: by its SOPInstanceUID, in a film also by the number of its frame, from 1.
export async function goTo({ set, viewports }, instance, frame) {
  const wanted = `/instances/${instance}/frames/${frame || 1}`;
  const place = set.imageIds.findIndex(id => id.endsWith(wanted));
  const stacks = viewports
    .map(id => services().cornerstoneViewportService.getCornerstoneViewport(id))
    .filter(viewport => place >= 0 && viewport?.type === 'stack');
  for (const stack of stacks) {
    stack.scroll(place - stack.getTargetImageIdIndex(), false); // the wheel goes on from here, which setImageIdIndex would not tell it
    await window.cornerstone.imageLoader.loadAndCacheImage(set.imageIds[place]);
  }
}

// Call `action` whenever another picture of the series is shown. Viewports that are `known` already are left out.
export function onOtherPicture({ viewports }, known, action) {
  for (const viewport of viewports) {
    const { element } = services().cornerstoneViewportService.getCornerstoneViewport(viewport);
    if (!known.has(element)) {
      known.add(element);
      element.addEventListener(window.cornerstone.Enums.Events.STACK_NEW_IMAGE, action);
    }
  }
}

// Call `action` whenever OHIF has set a viewport up, with the same series or another one, and when another viewport is chosen.
export function onSetUp(action) {
  const { cornerstoneViewportService, viewportGridService } = services();
  cornerstoneViewportService.subscribe(cornerstoneViewportService.EVENTS.VIEWPORT_DATA_CHANGED, action);
  viewportGridService.subscribe(viewportGridService.EVENTS.ACTIVE_VIEWPORT_ID_CHANGED, action);
}

// The picture that is looked at: its place in the series, and its SOPInstanceUID (with `_frame` in a film).
export function current({ set, viewports }) {
  const viewport = services().cornerstoneViewportService.getCornerstoneViewport(viewports[0]);
  const place = Math.max(0, set.imageIds.indexOf(viewport.getCurrentImageId?.()));
  const instance = window.cornerstone.metaData.get('instance', set.imageIds[place]) || set.instances[0];
  const frame = set.imageIds[place].match(/\/frames\/(\d+)/)?.[1];
  const film = Number(instance.NumberOfFrames) > 1;
  return { place, instance: film ? `${instance.SOPInstanceUID}_${frame}` : instance.SOPInstanceUID };
}

// An empty label map with one segment per class over a series, in each viewport that shows it; kept when it is there. The
// brush draws in it, and no other one of the panel is over the series.
export async function prepare({ set, viewports }, labels) {
  const { segmentationService, cornerstoneViewportService } = services();
  const id = idOf(set);
  if (!segmentationService.getSegmentation(id)) {
    const segments = Object.fromEntries(
      Object.entries(labels).map(([label, index], i) => [index, { segmentIndex: index, label, active: i === 0 }])
    );
    await segmentationService.createLabelmapForDisplaySet(set, { segmentationId: id, label: 'LoCo', segments });
  }
  for (const viewport of viewports.filter(v => cornerstoneViewportService.getCornerstoneViewport(v))) {
    for (const { segmentationId } of segmentationService.getSegmentationRepresentations(viewport)) {
      if (segmentationId.startsWith(ID) && segmentationId !== id) {
        segmentationService.removeSegmentationRepresentations(viewport, { segmentationId });
      }
    }
    if (!segmentationService.getSegmentationRepresentations(viewport, { segmentationId: id }).length) {
      await segmentationService.addSegmentationRepresentation(viewport, { segmentationId: id, type: 'Labelmap' });
      Object.values(labels).forEach((index, i) =>
        segmentationService.setSegmentColor(viewport, id, index, COLOURS[i % COLOURS.length])
      );
    }
    segmentationService.setActiveSegmentation(viewport, id);
  }
}

// The label map that is shown: { data, grid } of a volume, { data, width, height } of a picture.
function labelmap(view, place = current(view).place) {
  const { segmentationService } = services();
  const id = idOf(view.set);
  const segmentation = segmentationService.getSegmentation(id);
  if (!segmentation) {
    throw new Error('No image is open yet; open a study first.');
  }
  const volume = segmentationService.getLabelmapVolume(id);
  if (volume) {
    const { dimensions, origin, spacing, direction } = volume;
    const axes = [0, 1, 2].map(a => [0, 1, 2].map(i => direction[3 * a + i] * spacing[a]));
    return { volume, data: volume.voxelManager.getCompleteScalarDataArray(), grid: { dimensions, origin: [...origin], axes } };
  }
  const { imageIds } = segmentation.representationData.Labelmap;
  const image = window.cornerstone.cache.getImage(imageIds[place]);
  return { image, data: image.voxelManager.getScalarData(), width: image.columns, height: image.rows };
}

// Show a mask of the server (NRRD), of a series of pictures on the one at `place`.
export function showMask(buffer, view, place) {
  const mask = parse(buffer);
  const map = labelmap(view, place);
  if (mask.data.length !== map.data.length) {
    throw new Error(`The mask has ${mask.data.length} voxels, the image ${map.data.length}; open the image again.`);
  }
  if (map.volume) {
    map.volume.voxelManager.setCompleteScalarDataArray(reordered(mask.data, mask.grid, map.grid));
  } else {
    map.data.set(mask.data);
  }
  changed(view);
}

// The label map as a file for the server, and whether nothing is labelled.
export async function labelFile(view) {
  const map = labelmap(view);
  const data = Uint8Array.from(map.data);
  const file = map.volume ? write(data, map.grid) : await writePicture(data, map.width, map.height);
  return { file, empty: !data.some(v => v) };
}

function changed({ set }) {
  const { Enums } = window.cornerstoneTools;
  const detail = { segmentationId: idOf(set) };
  window.cornerstone.triggerEvent(window.cornerstone.eventTarget, Enums.Events.SEGMENTATION_DATA_MODIFIED, detail);
}

export function activateSegment({ set }, index) {
  services().segmentationService.setActiveSegment(idOf(set), index);
}

// Let the left mouse button use a tool, by its name in OHIF's tool groups.
export function useTool(name, viewports) {
  for (const group of groupsOf(viewports)) {
    const before = group.getActivePrimaryMouseButtonTool();
    if (before && before !== name) {
      group.setToolPassive(before, { removeAllBindings: [{ mouseButton: 1 }] });
    }
    group.setToolActive(name, { bindings: [{ mouseButton: 1 }] });
  }
}

// Radius of brush and eraser, mm (pixels of a picture).
export function setBrushSize(radius, viewports) {
  const { setBrushSizeForToolGroup } = window.cornerstoneTools.utilities.segmentation;
  groupsOf(viewports).forEach(group => setBrushSizeForToolGroup(group.id, radius));
}

function groupsOf(viewports) {
  const { toolGroupService } = services();
  return new Set(viewports.map(v => toolGroupService.getToolGroupForViewport(v)).filter(Boolean));
}
