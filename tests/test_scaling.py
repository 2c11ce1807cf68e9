import pytest

import kclassify
from kclassify.config import resolve
from kclassify.scaling import for_few_images, scaled_to


@pytest.mark.parametrize(("optimizer", "factor"), [("nesterov", 4.0), ("adam", 2.0)])
def test_the_rate_follows_the_batch_by_a_named_rule(optimizer, factor):
    config = kclassify.FitConfig(optimizer=optimizer, batch_size=16, learning_rate=0.1)
    assert scaled_to(config, 64, given=()).learning_rate == pytest.approx(0.1 * factor)


def few(images, **given):
    config = kclassify.FitConfig(**{"batch_size": 256, "epochs": 4, "learning_rate": 0.1, **given})
    found = for_few_images(config, images, given=given)
    return found.batch_size, found.epochs


def test_few_images_get_small_batches_and_many_epochs():
    assert few(45_000) == (256, 4)
    assert few(1_000) == (32, 17)
    assert few(60) == (8, 72)
    assert few(5) == (4, 500)


def test_what_the_user_chose_stays():
    assert few(1_000, batch_size=100) == (100, 50)
    assert few(1_000, epochs=3) == (32, 3)
    assert few(1_000, time_budget="1m") == (32, 4)


def test_a_learning_rate_that_the_user_chose_is_not_scaled():
    config = kclassify.FitConfig(batch_size=256, learning_rate=0.05)
    found = for_few_images(config, 100, given={"learning_rate": 0.05})
    assert (found.batch_size, found.learning_rate) == (8, 0.05)


@pytest.mark.parametrize(("images", "share"), [(45_000, 0.3), (30_000, 0.3), (29_999, None)])
def test_of_few_images_none_is_left_out(images, share):
    config = resolve("fast", {})
    assert for_few_images(config, images, given=()).skip_learned == share
    assert for_few_images(config, images, given={"skip_learned"}).skip_learned == 0.3
