import pytest
from pydicom.dataset import Dataset

from lib.server.qido import found, json_of, studies_of


def header(study, series, name, modality="MR", date="20240102", instances=3):
    ds = Dataset()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientName, ds.Modality = study, series, name, modality
    ds.PatientID, ds.StudyDate, ds.NumberOfSeriesRelatedInstances = name.upper(), date, instances
    return ds


SERIES = [
    header("1.1", "2.1", "Beta^B", "CT", "20230501"),
    header("1.2", "2.2", "Alpha^A"),
    header("1.2", "2.3", "Alpha^A", "SEG", instances=1),
]


def names(query):
    return [str(row.PatientName) for row in found(studies_of(SERIES), query)]


def test_studies_are_rows_with_counts_and_modalities_by_name():
    first, second = studies_of(SERIES)
    assert (str(first.PatientName), str(second.PatientName)) == ("Alpha^A", "Beta^B")
    assert list(first.ModalitiesInStudy) == ["MR", "SEG"]
    assert (first.NumberOfStudyRelatedSeries, first.NumberOfStudyRelatedInstances) == (2, 4)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ([], ["Alpha^A", "Beta^B"]),
        ([("PatientName", "al*")], ["Alpha^A"]),
        ([("PatientName", "?eta^b")], ["Beta^B"]),
        ([("00100010", "beta*")], ["Beta^B"]),
        ([("PatientName", "[ab]*")], []),
        ([("ModalitiesInStudy", "SEG")], ["Alpha^A"]),
        ([("ModalitiesInStudy", "SEG,CT")], ["Alpha^A", "Beta^B"]),
        ([("StudyInstanceUID", "1.1,1.2")], ["Alpha^A", "Beta^B"]),
        ([("StudyInstanceUID", "1.1\\9")], ["Beta^B"]),
        ([("StudyInstanceUID", "1.")], []),
        ([("StudyDate", "20230101-20231231")], ["Beta^B"]),
        ([("StudyDate", "20230601-")], ["Alpha^A"]),
        ([("StudyDate", "-20230501")], ["Beta^B"]),
        ([("StudyDate", "20240102")], ["Alpha^A"]),
        ([("limit", "1")], ["Alpha^A"]),
        ([("limit", "1"), ("offset", "1")], ["Beta^B"]),
        ([("offset", "5")], []),
        ([("NoSuchThing", "x"), ("includefield", "all"), ("fuzzymatching", "false")], ["Alpha^A", "Beta^B"]),
        ([("PatientName", "")], ["Alpha^A", "Beta^B"]),
    ],
)
def test_filters_and_paging(query, expected):
    assert names(query) == expected


def test_a_limit_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="invalid literal"):
        names([("limit", "many")])


def test_json_says_where_to_retrieve():
    assert json_of(SERIES[0], "http://here/studies/1.1")["00081190"]["Value"] == ["http://here/studies/1.1"]
