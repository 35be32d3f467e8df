"""The nine published checkpoints: names, aliases, encoders; unknown ones are refused with the nearest."""

import pytest

from geoflow import Geolocator, plonk


def test_nine_models_with_their_encoders():
    assert len(plonk.MODELS) == 9
    assert (
        plonk.published("nicolas-dufour/PLONK_YFCC")
        == plonk.published("plonk-yfcc")
        == plonk.Published("nicolas-dufour/PLONK_YFCC", "riemannian", "dinov2")
    )
    assert plonk.published("nicolas-dufour/PLONK_OSV_5M_diffusion").encoder == "streetclip"
    assert (
        plonk.published("plonk-inaturalist-flow").repository
        == "nicolas-dufour/PLONK_iNaturalist_flow"
    )
    assert plonk.published("tiles") is None
    with pytest.raises(ValueError, match="did you mean 'nicolas-dufour/PLONK_iNaturalist'"):
        plonk.published("nicolas-dufour/PLONK_iNat")
    with pytest.raises(ValueError, match="did you mean 'plonk-yfcc'"):
        Geolocator.from_pretrained("plonk-yfc")
