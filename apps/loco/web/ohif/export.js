// OHIF's own export gives each frame of a segmentation the place of another slice: it takes the slices in the order of its
// display set, and its DICOM writer counts them from the far end of the series. Here each frame goes back to where it was drawn.

const first = sequence => (Array.isArray(sequence) ? sequence[0] : sequence);

// Millimetres of a slice along the normal of the series.
function height(instance) {
  const [a, b, c, d, e, f] = instance.ImageOrientationPatient.map(Number);
  const normal = [b * f - c * e, c * d - a * f, a * e - b * d];
  return instance.ImagePositionPatient.reduce((sum, value, axis) => sum + Number(value) * normal[axis], 0);
}

// Put the frames of a SEG back, in place. `instances`: those of the series it was drawn on, in OHIF's order.
export function putBack(seg, instances) {
  const frames = seg.PerFrameFunctionalGroupsSequence;
  if (!frames || instances.some(i => !i?.ImagePositionPatient || !i.ImageOrientationPatient)) {
    return; // pictures have no place
  }
  const written = [...instances].sort((a, b) => height(b) - height(a));
  const drawnOn = new Map(written.map((instance, i) => [instance.SOPInstanceUID, instances[i]]));
  seg.PerFrameFunctionalGroupsSequence = Array.from(frames, frame => {
    const own = JSON.parse(JSON.stringify(frame)); // frames of two segments may share their parts
    const source = first(first(own.DerivationImageSequence)?.SourceImageSequence);
    const instance = drawnOn.get(source?.ReferencedSOPInstanceUID);
    if (instance) {
      source.ReferencedSOPInstanceUID = instance.SOPInstanceUID;
      first(own.PlanePositionSequence).ImagePositionPatient = Array.from(instance.ImagePositionPatient, Number);
      const indices = first(own.FrameContentSequence)?.DimensionIndexValues;
      if (Array.isArray(indices) && indices.length === 2) {
        indices[1] = written.indexOf(instance) + 1;
      }
    }
    return own;
  });
}

function instancesOf(series) {
  const sets = window.services.displaySetService.getActiveDisplaySets();
  const set = sets.find(s => s.SeriesInstanceUID === series && s.imageIds?.length);
  return set ? set.imageIds.map(id => window.cornerstone.metaData.get('instance', id)) : [];
}

// Mend what OHIF stores, once for its data source.
export function mendExport() {
  const store = window.extensionManager?.getActiveDataSource?.()[0]?.store;
  if (!store?.dicom || store.mended) {
    return;
  }
  const send = store.dicom;
  store.dicom = (dataset, ...rest) => {
    if (dataset?.Modality === 'SEG') {
      putBack(dataset, instancesOf(first(dataset.ReferencedSeriesSequence)?.SeriesInstanceUID));
    }
    return send(dataset, ...rest);
  };
  store.mended = true;
}
